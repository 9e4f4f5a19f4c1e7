"""Training curves: TensorBoard by default, W&B or MLflow by one setting, and Ray metrics always. Rank 0 only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ray_app.errors import InputError
from ray_app.train.settings import TrackingSettings


class Tracker(Protocol):
    """One place that points go to."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder`; after a restart the same steps are written again, and the last value shows."""

    def __init__(self, folder: str) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(folder)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """Weights & Biases; the key comes from WANDB_API_KEY. The run's name is its id, so a restart continues it."""

    def __init__(self, project: str, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(project=project, name=name, id=name, resume="allow", config=dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


class Mlflow:
    """MLflow; the server comes from MLFLOW_TRACKING_URI."""

    def __init__(self, project: str, name: str, config: Mapping[str, Any]) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.set_experiment(project)
        found = mlflow.search_runs(filter_string=f"tags.mlflow.runName = '{name}'", output_format="list")
        mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=name)
        if not found:
            mlflow.log_params({key: str(value)[:250] for key, value in config.items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics({f"train/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class RayMetrics:
    """Gauges `ray_ste_train_<name>`, tagged with the run's name."""

    def __init__(self, name: str) -> None:
        self.tags = {"run": name}
        self.gauges: dict[str, Any] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from ray.util.metrics import Gauge

        for name, value in {"step": float(step), **values}.items():
            if name not in self.gauges:  # a recipe's figures are named by it, so not all are in ray_metrics.METRICS
                self.gauges[name] = Gauge(f"ste_train_{name}", f"training: {name}", tag_keys=("run",))
            self.gauges[name].set(value, tags=self.tags)

    def close(self) -> None:
        return None


def open_trackers(settings: TrackingSettings, *, name: str, folder: str, config: Mapping[str, Any]) -> list[Tracker]:
    """The configured trackers. Raises InputError naming the setting when one's package is not installed."""
    trackers: list[Tracker] = [RayMetrics(name)]
    for kind in settings.to:
        try:
            if kind == "tensorboard":
                trackers.append(TensorBoard(folder))
            elif kind == "wandb":
                trackers.append(Wandb(settings.project, name, config))
            else:
                trackers.append(Mlflow(settings.project, name, config))
        except ImportError as fault:
            raise InputError(f"train.tracking.to: {kind} is not installed ({fault})") from fault
    return trackers
