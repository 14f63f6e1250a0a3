"""Workers own documents: shards, synchronizers, the engine, and what is written to the volume."""
