"""Staying the one that computes a result while no worker has the task."""

from __future__ import annotations

import asyncio
import contextlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_dbnd.core.reuse import flight
from airflow_provider_dbnd.core.reuse.flight import Lease
from airflow_provider_dbnd.exceptions import DbndError
from airflow_provider_dbnd.hooks.settings import store_at


class LeaseTrigger(BaseTrigger):
    """Waits as another trigger does, and renews the lease of the task meanwhile.

    :param waits_as: class path of the other trigger, which gets the rest of the arguments.
    :param lease: the lease as JSON, with the ``store`` it is in and its ``storage_options``.
    """

    def __init__(self, *, waits_as: str, lease: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits_as, self._lease, self._arguments = waits_as, lease, kwargs
        self._other: BaseTrigger = pkgutil.resolve_name(waits_as)(**kwargs)

    @classmethod
    def around(
        cls, trigger: BaseTrigger, lease: Lease, store: str, storage_options: Mapping[str, Any]
    ) -> LeaseTrigger:
        """Return the trigger for a task that holds *lease*, in *store*, and waits by another *trigger*."""
        waits_as, arguments = trigger.serialize()
        given = {"store": store, "storage_options": storage_options, **lease.to_json()}
        return cls(waits_as=waits_as, lease=given, **arguments)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes the trigger of."""
        mine = {"waits_as": self._waits_as, "lease": self._lease}
        return f"{__name__}.{type(self).__name__}", {**self._arguments, **mine}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the event of the other trigger."""
        self._tell_other()
        over = asyncio.Event()
        renewal = asyncio.create_task(self._renew_until(over))
        try:
            async for event in self._other.run():
                # The worker that takes the task up goes on with the lease, however late.
                over.set()
                await renewal
                yield event
        finally:
            renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewal

    async def cleanup(self) -> None:
        """Clean up as the other trigger does."""
        await self._other.cleanup()

    async def on_kill(self) -> None:
        """Kill as the other trigger does, and let other runs compute the result."""
        self._tell_other()
        try:
            # Airflow calls it since 3.3.
            await self._other.on_kill()
        finally:
            await self._to_lease(Lease.end)

    def _tell_other(self) -> None:
        # What the triggerer sets on the triggers that it runs.
        for name in ("task_instance", "trigger_id", "triggerer_job_id", "timeout_after"):
            if hasattr(self, name):
                setattr(self._other, name, getattr(self, name))

    async def _renew_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._to_lease(Lease.renew_waiting)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(over.wait(), flight.WAITING_RENEWAL)
        await self._to_lease(Lease.renew_waiting)

    async def _to_lease(self, do: Callable[[Lease], None]) -> None:
        try:
            await sync_to_async(self._at_lease, thread_sensitive=False)(do)
        except DbndError as exc:
            self.log.warning("the lease of this task's result could not be written: %s", exc)

    def _at_lease(self, do: Callable[[Lease], None]) -> None:
        lease = dict(self._lease)
        do(Lease(store_at(lease.pop("store"), lease.pop("storage_options")), **lease))
