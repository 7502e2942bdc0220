"""Pictures of a report: inline SVG without scripts, coloured by the page's CSS variables alone.

Every picture has a title and a description inside, and says nothing that the table beneath it
does not say too. Form and position carry the meaning; colour only repeats it.
"""
