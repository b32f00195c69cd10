"""Use cases of users' templates: keep, find, change and delete descriptions of sandboxes to come."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import structlog

from hearth.control.creation import Extras, new_sandbox, sized
from hearth.control.images import Images
from hearth.control.sandboxes import Sandboxes
from hearth.control.secrets import Secrets
from hearth.errors import NotFound, TooLarge
from hearth.host.clock import Clock
from hearth.host.identity import new_id
from hearth.model import SandboxSpec, User, check_name
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.template_store import Template, TemplateStore
from hearth.volume.base import VolumeInUse

log = structlog.get_logger(__name__)

ID_KIND = "tmpl"
MAX_TEMPLATE_BYTES = 512 * 1024
"""Of what one says, as JSON: pages of them are read as a whole."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a template's words ask for: the sandbox that would be made of it now."""

    spec: SandboxSpec
    extras: Extras


class UserTemplates:
    """The templates of all users."""

    def __init__(
        self, *, store: TemplateStore, sandboxes: Sandboxes, images: Images, secrets: Secrets, clock: Clock
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._images = images
        self._secrets = secrets
        self._clock = clock

    async def create(self, user: User, name: str, words: Mapping[str, object], meaning: Meaning) -> Template:
        """Keep a description under a name.

        Args:
            words: what it says, in the API's words.
            meaning: what that asks for.

        Raises:
            InvalidInput: names the field.
            NotFound: there is no such image, volume or secret.
            Conflict: the user has one of that name, or too many; or the engine cannot do it.
            TooLarge: it says too much.
        """
        check_name(name)
        await self._check(user, words, meaning)
        now = self._clock.now()
        template = Template(
            id=new_id(ID_KIND), owner=user.id, name=name, spec=dict(words), created_at=now, updated_at=now
        )
        await self._store.create(template)
        log.info("template kept", template=template.id, name=name)
        return template

    async def get(self, user: User, reference: str) -> Template:
        """Find a template by id or name; an administrator's own come before those of others.

        Raises:
            NotFound: the user has none such.
            Conflict: a name fits those of several users.
        """
        with contextlib.suppress(NotFound):
            return await self._store.resolve(user.id, reference)
        if not user.admin:
            raise NotFound(
                "no such template",
                details=f"{reference[:80]!r} is none of yours",
                resolution="see 'hearth template list'",
                field="template_id",
            )
        return await self._store.resolve(None, reference)

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[Template]:
        """Give a page of the user's templates (everybody's for an administrator), oldest first."""
        return await self._store.list(None if user.admin else user.id, page=page)

    async def change(
        self, user: User, template: Template, name: str | None, words: Mapping[str, object], meaning: Meaning
    ) -> Template:
        """Let a template say something else from now on; what was made of it stays as it is.

        Args:
            template: as the caller has found it.
            name: a new one; None keeps the old.

        Raises:
            NotFound: it is gone.
            Conflict: somebody changed it meanwhile, or as ``create``.
            InvalidInput, TooLarge: as ``create``.
        """
        # Of its owner's images, volumes and secrets, whoever changes it.
        await self._check(User(id=template.owner, name=user.name), words, meaning)
        new_name = template.name if name is None else check_name(name)
        now = max(self._clock.now(), template.updated_at)
        changed = replace(template, name=new_name, spec=dict(words), updated_at=now)
        return await self._store.replace(changed, known=template.updated_at)

    async def delete(self, user: User, reference: str) -> None:
        """Delete one; sandboxes that were made of it stay. Raises NotFound, Conflict."""
        template = await self.get(user, reference)
        await self._store.delete(template.id)
        log.info("template deleted", template=template.id, name=template.name)

    async def _check(self, user: User, words: Mapping[str, object], meaning: Meaning) -> None:
        """Refuse what could not be created now, but for what may change in a moment: space, quotas, volumes in use."""
        if (size := len(msgspec.json.encode(words))) > MAX_TEMPLATE_BYTES:
            raise TooLarge(
                "the template is too large",
                details=f"it has {size} bytes",
                resolution=f"say it in {MAX_TEMPLATE_BYTES}; more belongs into an image or a volume",
            )
        spec, extras = meaning.spec, meaning.extras
        isolated = self._sandboxes.workshop.engine.capabilities.isolated
        self._sandboxes.admission.check(spec, extras.outfit)
        self._sandboxes.networking.check(spec)
        await self._secrets.require(user, spec.secrets, isolated=isolated)
        with contextlib.suppress(VolumeInUse):
            await self._sandboxes.volumes.check_wanted(user, extras.volumes)
        boot = await self._images.choose(user, spec.image)
        sized(new_sandbox(user, spec, boot.rootfs_id, self._clock.now()), boot)
