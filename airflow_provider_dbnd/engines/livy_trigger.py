"""Waiting for a batch of Livy without a worker."""

from __future__ import annotations

from typing import Any

from airflow.providers.apache.livy.hooks.livy import LivyAsyncHook
from airflow.providers.apache.livy.triggers.livy import LivyTrigger


class BatchTrigger(LivyTrigger):
    """The provider's trigger, behind a prefix as well; it kills the batch when the task is killed."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes the trigger of."""
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    async def on_kill(self) -> None:
        """Delete the batch: somebody marked or cleared the deferred task."""
        hook = self._get_async_hook()
        await hook.run_method(f"{hook.endpoint_prefix}/batches/{self._batch_id}", method="DELETE")

    def _get_async_hook(self) -> LivyAsyncHook:
        if self._livy_hook_async is None:
            self._livy_hook_async = _Hook(
                livy_conn_id=self._livy_conn_id,
                extra_headers=self._extra_headers,
                extra_options=self._extra_options,
                endpoint_prefix=self._endpoint_prefix,
            )
        return self._livy_hook_async


class _Hook(LivyAsyncHook):
    async def run_method(self, endpoint: str, *args: Any, **kwargs: Any) -> Any:
        """Ask Livy. The provider's methods put the prefix before what its own puts it before again."""
        if self.endpoint_prefix:
            endpoint = endpoint.removeprefix(f"{self.endpoint_prefix}/")
        return await super().run_method(endpoint, *args, **kwargs)
