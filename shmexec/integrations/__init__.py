"""Other packages on our pool. Each module needs the package of its name, and says what to install."""
