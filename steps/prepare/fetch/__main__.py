"""The fetch step's command; the model step calls the same function."""

from steps.base.step import main
from steps.config.fetch import FetchConfig
from steps.prepare.fetch.fetch import fetch

if __name__ == "__main__":
    main("fetch", FetchConfig, fetch)
