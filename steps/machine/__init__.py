"""The machine and what runs on it: probes, environments, images, containers."""
