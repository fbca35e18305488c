"""What a model is: the file, how it is trained, who has it loaded."""
