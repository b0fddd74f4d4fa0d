"""Songs, MIDI files, parts and the vocabulary. No torch."""
