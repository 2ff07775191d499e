"""The fetch step's command; the model step fetches in the same way."""

from steps.base.step import main
from steps.config.fetch import FetchConfig
from steps.prepare.fetch.fetch import step

if __name__ == "__main__":
    main("fetch", FetchConfig, step)
