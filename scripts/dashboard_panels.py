"""The panels of the dashboard and the alerts of Prometheus, as data. scripts/dashboard.py writes them as files."""

from __future__ import annotations

from dataclasses import dataclass

from ray_app.findings.settings import AlarmSettings

LIMITS = AlarmSettings()
IDLE, QUARANTINED = 0.5, 0.05  # shares above which an alert is raised
BY = "run, stage, iteration"
STAGE = "{{run}} {{stage}} {{iteration}}"
PERCENT = "percentunit"


@dataclass(frozen=True)
class Shown:
    """One panel: what it shows, in which of Grafana's units, and {legend: query}.

    In queries BY is run, stage and iteration, and {F} and {T} are the reader's choice of runs: of figures that are
    tagged with a run, and of those of its trainings.
    """

    title: str
    description: str
    unit: str
    queries: dict[str, str]


NOW = [
    Shown(
        "Rows per second",
        "Units that engines finish: rows of pairs, (pair, order) of judgments and evaluations.",
        "ops",
        {STAGE: "sum by (BY) (rate(ray_ste_rows_total{F}[$window]))"},
    ),
    Shown(
        "Rows left",
        "The queue: what no shard holds yet, of the stage that goes on.",
        "short",
        {"{{run}} {{work}}": "sum by (run, work) (ray_ste_units_left{F})"},
    ),
    Shown(
        "Tokens per second",
        "Of finished units; a unit counts when it ends.",
        "short",
        {
            "{{run}} {{role}} made": "sum by (run, role) (rate(ray_ste_completion_tokens_total{F}[$window]))",
            "{{run}} {{role}} read": "sum by (run, role) (rate(ray_ste_prompt_tokens_total{F}[$window]))",
        },
    ),
    Shown(
        "Seconds a unit",
        "From a unit's start to its end, all its samples: half of them, and 95 of 100, are faster.",
        "s",
        {
            f"{{{{run}}}} {{{{stage}}}} {name}": f"histogram_quantile({share}, sum by (le, run, stage) "
            "(rate(ray_ste_unit_seconds_bucket{F}[$window])))"
            for name, share in (("median", 0.5), ("95 %", 0.95))
        },
    ),
    Shown(
        "Units in the engines",
        "What engines have and have not finished. Zero while rows are left: they wait for work.",
        "short",
        {"{{run}} {{role}}": "sum by (run, role) (ray_ste_in_flight{F})"},
    ),
    Shown(
        "Idle share of the engines",
        "Share of the window in which an engine had no unit at all, over the engines of a role.",
        PERCENT,
        {"{{run}} {{role}}": "1 - avg by (run, role) (avg_over_time((ray_ste_in_flight{F} > bool 0)[$window:]))"},
    ),
]
GOOD = [
    Shown(
        "Accuracy",
        "On each evaluation set, when its iteration is evaluated. The report has the intervals.",
        PERCENT,
        {"{{run}} {{set}} {{iteration}}": "max by (run, set, iteration) (ray_ste_accuracy{F})"},
    ),
    Shown(
        "Keep and pass rate",
        "Of committed training sets: units with a judgment to keep, and those whose first judgment is right.",
        PERCENT,
        {
            "{{run}} {{iteration}} kept": "max by (run, iteration) (ray_ste_keep_rate{F})",
            "{{run}} {{iteration}} right at once": "max by (run, iteration) (ray_ste_pass_rate{F})",
        },
    ),
    Shown(
        "Kept and unparsed, now",
        "Units with a judgment to keep, and judgments without a verdict, of those that finish.",
        PERCENT,
        {
            f"{STAGE} kept": "sum by (BY) (rate(ray_ste_kept_total{F}[$window])) / "
            "sum by (BY) (rate(ray_ste_rows_total{F}[$window]))",
            f"{STAGE} unparsed": "sum by (BY) (rate(ray_ste_unparsed_total{F}[$window])) / "
            "sum by (BY) (rate(ray_ste_samples_total{F}[$window]))",
        },
    ),
    Shown(
        "Alarms",
        "How many the run has raised, and what each saw (docs/report.md).",
        "short",
        {
            "{{run}} alarms": "max by (run) (ray_ste_alarms{F})",
            "{{run}} {{alarm}} {{iteration}}": "max by (run, alarm, iteration) (ray_ste_alarm{F})",
        },
    ),
]
LOST = [
    Shown(
        "Quarantined, now",
        "Units that living engines have quarantined, by reason.",
        "short",
        {"{{run}} {{stage}} {{reason}}": "sum by (run, stage, reason) (ray_ste_failures_total{F})"},
    ),
    Shown(
        "Quarantined by stage",
        "Of committed stages, those that ask no engine too.",
        "short",
        {f"{STAGE} {{{{reason}}}}": "max by (BY, reason) (ray_ste_quarantined{F})"},
    ),
]
TIME = [
    Shown(
        "Seconds a stage",
        "Wall time of committed stages, engine start included; stages side by side overlap.",
        "s",
        {STAGE: "max by (BY) (ray_ste_stage_seconds{F})"},
    ),
    Shown("Rows a stage", "Of committed stages.", "short", {STAGE: "max by (BY) (ray_ste_stage_rows{F})"}),
    Shown(
        "GPU idle share of a stage",
        "Of committed stages that held GPUs: the share of that time in which they had nothing to do.",
        PERCENT,
        {STAGE: "max by (BY) (ray_ste_gpu_idle_share{F})"},
    ),
]
TRAINING = [
    Shown("Loss", "Per target token.", "short", {"{{run}}": "max by (run) (ray_ste_train_loss{T})"}),
    Shown(
        "MFU",
        "Share of the GPUs' peak that the model's FLOPs are (bf16, dense).",
        PERCENT,
        {"{{run}}": "max by (run) (ray_ste_train_mfu{T})"},
    ),
    Shown(
        "Tokens per second in training",
        "Of all workers.",
        "short",
        {"{{run}}": "max by (run) (ray_ste_train_tokens_per_second{T})"},
    ),
    Shown(
        "Learning rate and gradient norm",
        "At every point of the curves.",
        "short",
        {
            "{{run}} lr": "max by (run) (ray_ste_train_lr{T})",
            "{{run}} gradient norm": "max by (run) (ray_ste_train_grad_norm{T})",
        },
    ),
]
ROWS = {
    "Now": NOW,
    "Is it any good?": GOOD,
    "What was thrown away": LOST,
    "Where the time goes": TIME,
    "Training": TRAINING,
}
ALERTS: list[tuple[str, str, str, str]] = [  # name, expression, for how long, what to do
    (
        "SteKeepRateLow",
        f"max by (run, iteration) (ray_ste_keep_rate) < {LIMITS.keep_rate}",
        "0m",
        "The judge finds few right responses, or explains none: read judgments in the report (alarm keep_rate_low).",
    ),
    (
        "SteUnparsedHigh",
        f"sum by ({BY}) (increase(ray_ste_unparsed_total[15m])) / "
        f"sum by ({BY}) (increase(ray_ste_samples_total[15m])) > {LIMITS.unparsed}",
        "10m",
        "Judgments hold no verdict: another prompt (prompts.judge), or more generation.max_tokens.",
    ),
    (
        "SteEngineStalled",
        "max by (run, work) (ray_ste_units_left) > 0 and max by (run, work) (changes(ray_ste_tokens_made[10m])) == 0",
        "10m",
        "Rows are left and no engine has made a token for ten minutes: look at the engines' logs in the Ray dashboard.",
    ),
    (
        "SteIdleShareHigh",
        f"1 - avg by (run, role) (avg_over_time((ray_ste_in_flight > bool 0)[15m:])) > {IDLE}",
        "15m",
        "Engines wait for work: fewer replicas, or pools.side_by_side (docs/judging.md).",
    ),
    (
        "SteQuarantineHigh",
        f"sum by ({BY}) (increase(ray_ste_failures_total[15m])) / "
        f"sum by ({BY}) (increase(ray_ste_rows_total[15m])) > {QUARANTINED}",
        "10m",
        "Rows are lost: their reasons are in the dashboard, and each with its cause in the stage's quarantine shards.",
    ),
    (
        "SteAlarm",
        "max by (run, iteration, alarm) (ray_ste_alarm) > 0",
        "0m",
        "The run has raised an alarm: its report says what was seen, and what to try.",
    ),
]
