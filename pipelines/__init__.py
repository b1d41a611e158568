"""voxarray: the work. `core` is the engine, `audio` reads recordings, every other folder is one pipeline."""
