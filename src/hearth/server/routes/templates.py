"""/api/v1/templates: users' descriptions of sandboxes to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hearth.api.schemas import CreateSandbox, Nothing
from hearth.api.template_operations import (
    CHANGE_TEMPLATE,
    CREATE_TEMPLATE,
    DELETE_TEMPLATE,
    GET_TEMPLATE,
    LIST_TEMPLATES,
)
from hearth.api.template_schemas import (
    ChangeTemplate,
    CreateTemplate,
    ListTemplates,
    TemplateFile,
    TemplateList,
    TemplateView,
)
from hearth.control.user_templates import Meaning
from hearth.server.drafts import Draft, read_settings, said_in, settings_in
from hearth.server.resource import Call, bind
from hearth.store.base import PageRequest
from hearth.store.template_store import Template

NOT_ALIKE = ("env", "files")
"""What a template says of these is not given back as it is."""


async def list_templates(call: Call[ListTemplates]) -> TemplateList:
    page = await call.daemon.user_templates.list(
        call.user, PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    )
    return TemplateList(items=[_view(each) for each in page.items], next_cursor=page.next_cursor)


async def create(call: Call[CreateTemplate]) -> TemplateView:
    words = settings_in(await said_in(call))
    name = call.input.name
    return _view(await call.daemon.user_templates.create(call.user, name, words, _meaning(words, name)))


async def get(call: Call[Nothing]) -> TemplateView:
    return _view(await call.daemon.user_templates.get(call.user, call.ref))


async def change(call: Call[ChangeTemplate]) -> TemplateView:
    template = await call.daemon.user_templates.get(call.user, call.ref)
    words = settings_in({**template.spec, **await said_in(call)})
    name = call.input.name
    meaning = _meaning(words, name or template.name)
    return _view(await call.daemon.user_templates.change(call.user, template, name, words, meaning))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.user_templates.delete(call.user, call.ref)
    return Nothing()


def _meaning(words: Mapping[str, Any], name: str) -> Meaning:
    settings = read_settings(words)
    body = CreateSandbox(**{field: getattr(settings, field) for field in settings.__struct_fields__})
    draft = Draft(body=body, new_volumes_are_patterns=True)
    return Meaning(spec=draft.spec(name), extras=draft.extras(name))


def _view(template: Template) -> TemplateView:
    settings = read_settings(template.spec)
    extras = Draft(body=CreateSandbox(files=settings.files)).extras(template.name)
    files = [
        TemplateFile(guest_path=file.guest_path, size_bytes=len(file.content), mode=file.mode)
        for file in extras.outfit.files
    ]
    alike = {name: getattr(settings, name) for name in template.spec if name not in NOT_ALIKE}
    return TemplateView(
        id=template.id,
        name=template.name,
        created_at=template.created_at,
        updated_at=template.updated_at,
        env_names=sorted(settings.env),
        files=files,
        **alike,
    )


BOUND = (
    bind(LIST_TEMPLATES, list_templates),
    bind(CREATE_TEMPLATE, create),
    bind(GET_TEMPLATE, get),
    bind(CHANGE_TEMPLATE, change),
    bind(DELETE_TEMPLATE, delete),
)
