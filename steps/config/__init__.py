"""What can be configured: schema, engines, layers of settings, groups, composition."""
