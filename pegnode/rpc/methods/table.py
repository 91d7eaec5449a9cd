"""Which methods there are, what they take, and how they explain themselves: all read from the functions themselves."""

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pegnode.rpc.errors import RpcCode, RpcError
from pegnode.rpc.node_api import NodeApi

Handler = Callable[..., Awaitable[object]]
"""`async def name(node: NodeApi, first: type, second: type = default) -> object`. The docstring is the help text."""

_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method. kind: a type that msgspec converts to."""

    name: str
    kind: Any
    default: object

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is _REQUIRED

    def convert(self, value: object) -> object:
        """`value` as this parameter's type; raises RpcError."""
        try:
            return msgspec.convert(value, self.kind)
        except msgspec.ValidationError as error:
            raise RpcError(RpcCode.TYPE_ERROR, f"{self.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the interface."""

    name: str
    section: str
    parameters: tuple[Parameter, ...]
    help_text: str
    handler: Handler

    @classmethod
    def of(cls, section: str, handler: Handler) -> "Method":
        """The method that `handler` serves, under the handler's name."""
        kinds = typing.get_type_hints(handler)
        parameters = list(inspect.signature(handler).parameters.values())[1:]
        return cls(
            name=handler.__name__,
            section=section,
            parameters=tuple(Parameter(item.name, kinds[item.name], item.default) for item in parameters),
            help_text=inspect.getdoc(handler) or "",
            handler=handler,
        )

    @property
    def usage(self) -> str:
        """One line: the name, then the parameters, optional ones in brackets."""
        words = [item.name if item.required else f"[{item.name}]" for item in self.parameters]
        return " ".join([self.name, *words])

    def describe(self) -> str:
        """The help of this method."""
        lines = [f"{item.name}: {_type_text(item.kind)}{_default_text(item)}" for item in self.parameters]
        return "\n".join([self.usage, "", self.help_text, *(["", *lines] if lines else [])])

    def bind(self, params: list[Any] | dict[str, Any]) -> dict[str, object]:
        """The arguments by name, converted; raises RpcError."""
        if isinstance(params, list):
            if len(params) > len(self.parameters):
                raise RpcError(RpcCode.INVALID_PARAMS, f"Too many parameters. Usage: {self.usage}")
            given = {item.name: value for item, value in zip(self.parameters, params, strict=False)}
        else:
            given = params
        unknown = given.keys() - {item.name for item in self.parameters}
        if unknown:
            raise RpcError(RpcCode.INVALID_PARAMETER, f"Unknown named parameter {sorted(unknown)[0]}")
        bound: dict[str, object] = {}
        for item in self.parameters:
            value = given.get(item.name)
            if value is not None:
                bound[item.name] = item.convert(value)
            elif item.required:
                raise RpcError(RpcCode.INVALID_PARAMS, f"Missing parameter {item.name}. Usage: {self.usage}")
        return bound


class MethodTable:
    """All methods by name."""

    def __init__(self, sections: Iterable[tuple[str, Iterable[Handler]]]) -> None:
        found = [Method.of(section, handler) for section, handlers in sections for handler in handlers]
        self._methods = {method.name: method for method in (*found, Method.of("control", self.help))}

    def __iter__(self) -> "typing.Iterator[Method]":
        return iter(self._methods.values())

    async def call(self, node: NodeApi, name: str, params: list[Any] | dict[str, Any]) -> object:
        """Serve one request. Raises RpcError, and whatever the node raises."""
        method = self._methods.get(name)
        if method is None:
            raise RpcError(RpcCode.METHOD_NOT_FOUND, "Method not found")
        return await method.handler(node, **method.bind(params))

    async def help(self, _node: NodeApi, command: str = "") -> str:
        """List all commands, or explain one.

        Returns text.
        """
        if command:
            method = self._methods.get(command)
            if method is None:
                raise RpcError(RpcCode.METHOD_NOT_FOUND, f"help: unknown command: {command}")
            return method.describe()
        sections: dict[str, list[str]] = {}
        for method in self._methods.values():
            sections.setdefault(method.section, []).append(method.usage)
        return "\n\n".join("\n".join([f"== {name} ==", *sorted(lines)]) for name, lines in sections.items())


def _type_text(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_type_text(item) for item in typing.get_args(kind) if item is not type(None))
    if typing.get_origin(kind) is list:
        return f"list of {_type_text(typing.get_args(kind)[0])}"
    return {str: "text", int: "integer", bool: "true or false"}.get(kind, str(kind))


def _default_text(parameter: Parameter) -> str:
    if parameter.required:
        return ""
    if parameter.default is None:
        return ", optional"
    return f", default {msgspec.json.encode(parameter.default).decode()}"
