"""`adapter fuse`: write a full model."""
