"""The formats by their names."""

from enum import StrEnum

from intake.formats.conll import CONLL
from intake.formats.cuad import CUAD
from intake.formats.doccano import DOCCANO
from intake.formats.file_format import FileFormat
from intake.formats.label_studio import LABEL_STUDIO
from intake.formats.prodigy import PRODIGY


class FormatName(StrEnum):
    """A format of files with annotated documents."""

    LABEL_STUDIO = "label-studio"
    CONLL = "conll"
    DOCCANO = "doccano"
    PRODIGY = "prodigy"
    CUAD = "cuad"


FORMATS: dict[FormatName, FileFormat] = {
    FormatName.LABEL_STUDIO: LABEL_STUDIO,
    FormatName.CONLL: CONLL,
    FormatName.DOCCANO: DOCCANO,
    FormatName.PRODIGY: PRODIGY,
    FormatName.CUAD: CUAD,
}
