"""Files of annotated documents: Label Studio, CoNLL 2003, doccano, Prodigy, CUAD."""
