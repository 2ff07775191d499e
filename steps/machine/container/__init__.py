"""Images that steps run in: built from what the checkout holds, named by what they are made of."""
