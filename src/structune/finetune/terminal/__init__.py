"""Tables, and libraries without their remarks."""
