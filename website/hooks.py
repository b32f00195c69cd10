"""What MkDocs is told beside its configuration: pages that are made, files of the repository that pages point to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files
from website.reference import calls_page, commands_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")
ROOT_PAGES = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "project/readme.md",
    "SECURITY.md": "project/security-policy.md",
}
"""Documents at the top of the repository, and where the site has them."""
MADE_PAGES = {"reference/commands.md": commands_page, "reference/calls.md": calls_page}
FILES = "files/"
"""Where the site has files of the repository that pages point to, such as rules for Prometheus."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation, under the title that its file begins with."""
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    entries = [{title_of(path): f"decisions/{path.name}"} for path in decisions]
    config.nav = [*(config.nav or []), {"Decisions": entries}]
    return config


def title_of(path: Path) -> str:
    """Give the heading that a document begins with."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that do not lie in docs/."""
    pointed_at: set[str] = set()
    for file in list(files.documentation_pages()):
        text = Path(str(file.abs_src_path)).read_text(encoding="utf-8")
        pointed_at |= {path for path, _ in outside_links(text, f"docs/{file.src_uri}")}
    for name, place in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        pointed_at |= {path for path, _ in outside_links(text, name)}
        files.append(File.generated(config, place, content=rewritten(text, name, place)))
    for place, make in MADE_PAGES.items():
        files.append(File.generated(config, place, content=make()))
    for path in sorted(pointed_at - set(ROOT_PAGES)):
        files.append(File.generated(config, FILES + path, content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ to where the site has what they point to."""
    place = page.file.src_uri
    if place in ROOT_PAGES.values() or place in MADE_PAGES:
        return markdown
    return rewritten(markdown, f"docs/{place}", place)


def outside_links(text: str, source: str) -> list[tuple[str, str]]:
    """Give the files outside docs/ that a document of the repository points to, with the links as they are written."""
    found = []
    for match in LINK.finditer(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if "://" not in match[1] and not path.startswith("docs/") and (ROOT / path).is_file():
            found.append((path, match[1]))
    return found


def rewritten(text: str, source: str, place: str) -> str:
    """Give a document with its links as they have to be where the site has it.

    Args:
        source: where the repository has it, such as ``docs/rootless.md``.
        place: where the site has it, such as ``rootless.md``.
    """

    def lead(match: re.Match[str]) -> str:
        link, anchor = match[1], match[2] or ""
        if "://" in link or link.startswith(("mailto:", "/")):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        if path == "docs/decisions" or (path.startswith("docs/decisions/") and link.endswith("/")):
            path = "docs/decisions/README.md"
        target = path.removeprefix("docs/") if path.startswith("docs/") else ROOT_PAGES.get(path, FILES + path)
        return posixpath.relpath(target, posixpath.dirname(place) or ".") + anchor

    return LINK.sub(lead, text)
