"""The embedded benchmark of pictures: flat shapes, and a small pipeline that draws them."""
