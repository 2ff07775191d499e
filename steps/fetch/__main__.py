"""The command of its own; the model step fetches by the same function."""

from steps.command import main
from steps.fetch.config import FetchConfig
from steps.fetch.fetch import fetch

if __name__ == "__main__":
    main("fetch", FetchConfig, fetch)
