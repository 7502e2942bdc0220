"""The stages of a system's life: design, develop, deploy, operate, retire. They meet only through evidence."""
