"""What decides a run: the recipe, as YAML and as a schema, those that come with structune."""
