"""Images that steps run in: built from the checkout's files, named by their inputs' digest."""
