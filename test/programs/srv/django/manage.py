"""A project of Django in one file."""
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

settings.configure(DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
urlpatterns = [path("", lambda request: HttpResponse("peer=%s" % request.META["REMOTE_ADDR"]))]
execute_from_command_line(sys.argv)
