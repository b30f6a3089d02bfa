"""What a finished DAG run left in the metadata DB."""

from __future__ import annotations

from typing import Any


class Records:
    """XComs and rendered fields of one DAG run."""

    def __init__(self, dag_run: Any) -> None:
        self.dag_run = dag_run

    def states(self) -> dict[Any, str]:
        return {
            ti.task_id if ti.map_index < 0 else (ti.task_id, ti.map_index): str(ti.state)
            for ti in self.dag_run.get_task_instances()
        }

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        return self._xcoms()[task_id, key, map_index]

    def all_text(self) -> str:
        """Everything about this run that is in the database, as text."""
        return repr(self._xcoms()) + repr(
            [r.rendered_fields for r in self._rows("renderedtifields")]
        )

    def serialized(self) -> str:
        """What Airflow keeps of the DAG."""
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.utils.session import create_session

        with create_session() as session:
            row = session.query(SerializedDagModel).filter_by(dag_id=self.dag_run.dag_id).one()
            return repr(row.data)

    def rendered(self, task_id: str, map_index: int = -1) -> Any:
        rows = self._rows("renderedtifields")
        return next(
            r.rendered_fields for r in rows if (r.task_id, r.map_index) == (task_id, map_index)
        )

    def _xcoms(self) -> dict[tuple[str, str, int], Any]:
        return {(x.task_id, x.key, x.map_index): x.value for x in self._rows("xcom")}

    def _rows(self, table: str) -> list[Any]:
        from airflow.models.renderedtifields import RenderedTaskInstanceFields
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        model: Any = {"xcom": XComModel, "renderedtifields": RenderedTaskInstanceFields}[table]
        with create_session() as session:
            query = session.query(model).filter(
                model.dag_id == self.dag_run.dag_id, model.run_id == self.dag_run.run_id
            )
            rows = query.all()
            session.expunge_all()
            return list(rows)
