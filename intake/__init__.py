"""From an upload to text, offsets and annotations: PDFs, locations on the page, Label Studio exports."""
