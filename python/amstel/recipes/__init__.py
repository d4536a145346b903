"""The old place of the trainings, until 0.1: they are in `amstel.apps` now. The next release removes this name."""

from amstel import _moved


def _apps(family: str, *modules: str) -> tuple[str, ...]:
    return tuple(f"amstel.apps.{family}.{module}" for module in modules)


_moved.modules(
    __name__,
    {
        "gcn": _apps("graphs", "train", "problem", "settings"),
        "karate": _apps("graphs", "karate"),
        "mri": (*_apps("restoration", "mri"), "amstel.inverse"),
        "restore": _apps("restoration", "train", "settings"),
        "sint": _apps("tracking", "train", "settings", "initial", "evaluate"),
        "video_lstm": _apps("video", "train", "settings", "network", "samples", "evaluate", "predict"),
        "video_studies": _apps("video", "studies"),
    },
)
