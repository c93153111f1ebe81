"""How the generated images are drawn: figures as polygons, styles that render them, and a thorax with findings."""
