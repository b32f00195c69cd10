"""Templates: descriptions of sandboxes to come, their users' own."""

from __future__ import annotations

from typing import Any

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import Nothing
from hearth.api.template_schemas import ChangeTemplate, CreateTemplate, ListTemplates, TemplateList, TemplateView
from hearth.errors import Code

TEMPLATES = f"{PREFIX}/templates"
TEMPLATE = f"{TEMPLATES}/{{ref}}"

LIST_TEMPLATES = Operation(
    name="list_templates",
    method="GET",
    path=TEMPLATES,
    summary="List the caller's templates, oldest first, a page at a time.",
    takes=ListTemplates,
    gives=TemplateList,
)
CREATE_TEMPLATE = Operation(
    name="create_template",
    method="POST",
    path=TEMPLATES,
    summary="Keep a description of sandboxes to come under a name; it is checked as a request for one is.",
    takes=CreateTemplate,
    gives=TemplateView,
    statuses=(201,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.HOST_UNFIT),
)
GET_TEMPLATE = Operation(
    name="get_template",
    method="GET",
    path=TEMPLATE,
    summary="Show one template, by id or name.",
    takes=Nothing,
    gives=TemplateView,
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
CHANGE_TEMPLATE = Operation(
    name="change_template",
    method="PATCH",
    path=TEMPLATE,
    summary="Change what a template says; sandboxes that were made of it stay as they are.",
    takes=ChangeTemplate,
    gives=TemplateView,
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.HOST_UNFIT),
)
DELETE_TEMPLATE = Operation(
    name="delete_template",
    method="DELETE",
    path=TEMPLATE,
    summary="Delete a template; sandboxes that were made of it stay.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    LIST_TEMPLATES,
    CREATE_TEMPLATE,
    GET_TEMPLATE,
    CHANGE_TEMPLATE,
    DELETE_TEMPLATE,
)
