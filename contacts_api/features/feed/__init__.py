"""A calendar of birthdays to subscribe to."""

from contacts_api.features import Feature
from contacts_api.features.feed.routes import calendar, feeds

FEATURE = Feature(name="feed", routers=[feeds, calendar])
