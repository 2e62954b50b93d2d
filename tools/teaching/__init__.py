"""What a teacher gets beside the notebooks: times, an answer key and a handout, made from what is in the project."""
