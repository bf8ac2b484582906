import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, final

__version__: str
WASMER_VERSION: str

_Output: TypeAlias = int | Callable[[bytes], int | None] | None

class WasmerError(Exception): ...
class CompileError(WasmerError): ...
class DeserializeError(WasmerError): ...
class LinkError(WasmerError): ...
class MemoryLimitError(LinkError): ...

class Trap(WasmerError):
    kind: str

class Exit(WasmerError):
    code: int

@final
class Engine:
    def __new__(
        cls,
        compiler: Literal["cranelift", "singlepass"] | None = ...,
        *,
        opt_level: Literal["speed", "speed_and_size", "none"] = "speed",
        threads: int | None = None,
        stack_bytes: int = ...,
        metering: bool = False,
    ) -> Engine: ...
    @property
    def compiler(self) -> str | None: ...
    def validate(self, wasm: bytes) -> None: ...
    def compile(self, wasm: bytes) -> Module: ...
    def deserialize(self, code: bytes) -> Module: ...
    def deserialize_file(self, path: str | os.PathLike[str], *, unchecked: bool = False) -> Module: ...

@final
class Module:
    @property
    def imports(self) -> list[str]: ...
    @property
    def exports(self) -> list[str]: ...
    @property
    def metered(self) -> bool: ...
    def serialize(self) -> bytes: ...
    def instantiate(
        self,
        argv: Sequence[str],
        *,
        env: Sequence[tuple[str, str]] = ...,
        preopens: Sequence[tuple[str | os.PathLike[str], str, bool]] = ...,
        stdin: int | None = ...,
        stdout: _Output = ...,
        stderr: _Output = ...,
        memory_limit_bytes: int | None = None,
        fuel: int | None = None,
        listen: Sequence[int] = ...,
    ) -> Instance: ...

@final
class Instance:
    @property
    def fuel(self) -> int | None: ...
    @property
    def memory_bytes(self) -> int: ...
    def run(self) -> int: ...
    def interrupt(self) -> None: ...
