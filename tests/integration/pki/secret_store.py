"""A store of Secrets that holds them in memory and can be away, like the API server that it stands for."""

from __future__ import annotations

from collections.abc import Mapping

from cloudhub.taskmanager.ports import NotFound, Rejected, SecretObject, Unavailable


class MemorySecrets:
    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], dict[str, bytes]] = {}
        self.types: dict[tuple[str, str], str] = {}
        self.away = False
        self.writes = 0

    async def get(self, namespace: str, name: str) -> SecretObject:
        self._reach()
        try:
            return SecretObject(type=self.types[namespace, name], data=dict(self.secrets[namespace, name]))
        except KeyError:
            raise NotFound(f"Secret {namespace}/{name}") from None

    async def create(self, namespace: str, name: str, *, type: str, data: Mapping[str, bytes]) -> None:
        self._reach()
        if (namespace, name) in self.secrets:
            raise Rejected(f"Secret {namespace}/{name} exists")
        self.secrets[namespace, name], self.types[namespace, name] = dict(data), type
        self.writes += 1

    async def update(self, namespace: str, name: str, *, data: Mapping[str, bytes]) -> None:
        self._reach()
        if (namespace, name) not in self.secrets:
            raise NotFound(f"Secret {namespace}/{name}")
        self.secrets[namespace, name].update(data)
        self.writes += 1

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the API server is away")
