"""A trained model: the tagger that is served, and the three of which it is the mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity
from embeddinggemma_feasibility.calibration import Calibration, Measurement, calibrate, measure
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.halves import HALVES, half_of
from embeddinggemma_feasibility.tagger import Tagger

MAX_MEASUREMENTS = 300
_FEW_DOCUMENTS = 30  # with as many, the blind taggers' share is half of its limit, which is a half
_FULL, _BLIND, _MEASUREMENTS = "full", "blind_{}", "measurements.json"

BlindTaggers = tuple[Tagger | None, Tagger | None]
_measurements = TypeAdapter(dict[str, Measurement])


@dataclass(frozen=True)
class TrainedModel:
    """Three taggers: `full` learned from all documents, `blind[h]` from all but those of half h, which it measures.

    A blind tagger is None until there is a document in the other half. The served tagger is a weighted mean of the
    three: with many documents, that is better and better calibrated than `full` alone; with few, the blind ones know
    too little (decision 0010).

    `measurements` hold what blind taggers ranked in the documents measured last, the newest at the end; the served
    tagger's calibration is fitted to them.
    """

    full: Tagger
    blind: BlindTaggers
    served: Tagger
    measurements: dict[str, Measurement]
    _ranked: dict[str, list[Entity]] = field(default_factory=dict, init=False)

    @classmethod
    def combine(
        cls,
        full: Tagger,
        blind: BlindTaggers,
        document_count: int,
        earlier: dict[str, Measurement],
        measured: Sequence[AnnotationData],
        cache: DiskCache | None,
        before_document: Callable[[], None] = lambda: None,
    ) -> "TrainedModel":
        """Return a model of taggers that learned from `document_count` documents, calibrated on unseen ones.

        These are the `measured` documents, and the `earlier` measurements of others. `before_document` is called before
        each of them is read.
        """
        served = full.copy_with_types(full.types)
        if others := [tagger for tagger in blind if tagger]:
            served.mix_in(others, 0.5 * document_count / (document_count + _FEW_DOCUMENTS))
        model = cls(full, blind, served, {})
        now = dict[str, Measurement]()
        for data in measured:
            if blind[half_of(data.text)]:
                before_document()
                now[data.document_id] = measure(data, model.rank_unseen(data, cache))
        kept = {document_id: found for document_id, found in earlier.items() if document_id not in now}
        model.measurements.update(list((kept | now).items())[-MAX_MEASUREMENTS:])
        served.calibration = calibrate(model.measurements.values())
        return model

    def rank_unseen(self, data: AnnotationData, cache: DiskCache | None) -> list[Entity]:
        """Return what the tagger that is blind to a document ranks in it; nothing if there is no such tagger yet."""
        tagger = self.blind[half_of(data.text)]
        if data.document_id not in self._ranked:
            self._ranked[data.document_id] = tagger.rank(data.text, cache) if tagger else []
        return self._ranked[data.document_id]

    def extract_unseen(
        self, documents: Sequence[AnnotationData], calibration: Calibration, cache: DiskCache | None
    ) -> dict[str, list[Entity]]:
        """Return what the tagger that is blind to each document extracts from it, by the document's id."""
        return {data.document_id: calibration.select(self.rank_unseen(data, cache)) for data in documents}

    def save(self, served: Path, training: Path) -> None:
        """Write the served tagger to one folder, and what further training needs to another."""
        self.served.save(served)
        self.full.save(training / _FULL)
        for half, tagger in zip(HALVES, self.blind, strict=True):
            if tagger:
                tagger.save(training / _BLIND.format(half))
        (training / _MEASUREMENTS).write_bytes(_measurements.dump_json(self.measurements))

    @classmethod
    def load(cls, served: Path, training: Path | None, encoder_name: str | None = None) -> "TrainedModel":
        """Read a saved model; an earlier version has no folder `training`, so its blind taggers start from nothing.

        Raises ValueError if the encoder is not the one that the model was trained on.
        """
        tagger = Tagger.load(served, encoder_name)
        if training is None:
            return cls(tagger, (None, None), tagger, {})
        folders = (training / _BLIND.format(half) for half in HALVES)
        first, second = (Tagger.load(each, encoder_name) if each.exists() else None for each in folders)
        return cls(
            Tagger.load(training / _FULL, encoder_name),
            (first, second),
            tagger,
            _measurements.validate_json((training / _MEASUREMENTS).read_bytes()),
        )
