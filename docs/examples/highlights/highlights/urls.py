from django.urls import path

from . import views

urlpatterns = [
    path("import", views.import_highlights),
    path("embedding-status", views.embedding_status),
    path("search", views.search),
    path("highlights/<int:pk>/similar", views.similar),
]
