# Licensed under the Apache License, Version 2.0; see LICENSE.
"""The command line ``xenpool``: one command per request. It decides nothing.

``main`` has the table of commands; each is a small class in a module named
after its first words. What is heavy is imported when a command runs, so that
``xenpool --help`` is quick.
"""
