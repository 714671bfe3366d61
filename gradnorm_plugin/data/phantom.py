"""Where the demo set's generator used to be: the `download` of older data yamls imports it from here."""

from gradnorm_demo import main as main
