"""The stack on a laptop: an emulated AWS, the real deployment, the development edge, the demo."""
