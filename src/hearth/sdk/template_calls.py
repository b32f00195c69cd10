"""The operations on templates as values; the rest is in ``calls``."""

from __future__ import annotations

from hearth.api.schemas import Nothing
from hearth.api.template_operations import (
    CHANGE_TEMPLATE,
    CREATE_TEMPLATE,
    DELETE_TEMPLATE,
    GET_TEMPLATE,
    LIST_TEMPLATES,
)
from hearth.api.template_schemas import ChangeTemplate, CreateTemplate, ListTemplates, TemplateList, TemplateView
from hearth.sdk.call import Call, call_of
from hearth.sdk.settings import SettingsOptions, described

TEMPLATE = "template"


class ChangeTemplateOptions(SettingsOptions, total=False):
    """What a change takes; what is left out stays. None, or something empty, takes away what was said."""

    name: str | None


def create(name: str, options: SettingsOptions) -> Call[TemplateView]:
    return described(CREATE_TEMPLATE, CreateTemplate, {**options, "name": name})


def page(cursor: str | None) -> Call[TemplateList]:
    return call_of(LIST_TEMPLATES, ListTemplates(cursor=cursor))


def get(ref: str) -> Call[TemplateView]:
    return call_of(GET_TEMPLATE, Nothing(), ref=ref, what=TEMPLATE)


def change(ref: str, options: ChangeTemplateOptions) -> Call[TemplateView]:
    return described(CHANGE_TEMPLATE, ChangeTemplate, options, ref=ref)


def delete(ref: str) -> Call[Nothing]:
    return call_of(DELETE_TEMPLATE, Nothing(), ref=ref, what=TEMPLATE)
