"""``python -m scripts.fairway``: the fairway command from a checkout."""

from scripts.fairway.main import main

if __name__ == "__main__":
    main()
