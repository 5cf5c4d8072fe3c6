"""The same stack on a laptop: the emulator, the real deploy, the development edge, the demo."""
