"""Small networks in the place of CLIP and Inception-v3, for the embedded benchmark of pictures."""
