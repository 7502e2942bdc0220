"""For authors of plug-ins and tests: fakes, contract checks, and the pytest plug-in that traces controls."""
