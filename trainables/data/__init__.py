"""Examples as token ids: encoding, batches, cached datasets."""
