"""Code that every part of the program uses: terminal, errors, files, secrets, stopping."""
