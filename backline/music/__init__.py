"""The vocabulary, songs and MIDI; parts and bars; chords, sheets and controls. No torch."""
