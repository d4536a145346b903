"""Where the trainings were until 0.1: they are in `amstel.apps` now. This name goes with the next release."""

from amstel import _moved

_moved.modules(
    __name__,
    {
        "gcn": "amstel.apps.graphs.train",
        "karate": "amstel.apps.graphs.karate",
        "mri": "amstel.apps.restoration.mri",
        "restore": "amstel.apps.restoration.train",
        "sint": "amstel.apps.tracking.train",
        "video_lstm": "amstel.apps.video.train",
        "video_studies": "amstel.apps.video.studies",
    },
)
