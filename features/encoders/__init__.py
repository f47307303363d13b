"""The networks that turn sound, pictures and words into features; they take the published weights."""
