"""Run and trial folders: layout, atomic checksummed files, ownership, mirroring to a bucket."""
